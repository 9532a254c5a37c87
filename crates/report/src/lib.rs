//! Renders analysis results as terminal text and JSON
