//! An application with a database of its own.
