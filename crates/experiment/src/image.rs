//! How much an image for another VMM measures.

use exitpath_exits::bare::ImageContents;

use crate::plan::Sampling;

/// The contents of an image that measures as much of each row.
pub fn image_contents(sampling: &Sampling, multiboot: bool) -> ImageContents {
    ImageContents {
        samples: sampling.samples,
        warm_up: sampling.warm_up,
        batches: sampling.batches,
        batch_length: sampling.batch_length,
        multiboot,
    }
}
