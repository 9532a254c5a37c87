//! Pure statistics and summaries over recordings
