//! The partition file: header, sections, index and footer.
