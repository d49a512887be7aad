//! From a configuration to handles.
