//! Wrappers that are themselves backends.
