//! The MANIFEST: the commit point of storage.
