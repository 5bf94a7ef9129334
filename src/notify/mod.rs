//! "These alerts changed; who hears what, when?"
