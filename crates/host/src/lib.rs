//! What this machine can be trusted for: the facts behind every host measurement
