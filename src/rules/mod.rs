//! "Every interval, ask, record, alert."
