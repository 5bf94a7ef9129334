//! What goes wrong with a request, in the notation of Prometheus' API.

use super::json;
use crate::promql::EvalError;
use crate::storage::ReadError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt;

/// The kind of an error: `errorType` and status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is at fault.
    BadData,
    /// The query cannot be answered.
    Execution,
    /// It took too long.
    Timeout,
    /// The client went away, or the server stops.
    Canceled,
    /// The server is at fault.
    Internal,
    /// Not now.
    Unavailable,
    /// There is no such thing.
    NotFound,
}

impl ErrorKind {
    fn parts(self) -> (&'static str, u16) {
        match self {
            ErrorKind::BadData => ("bad_data", 400),
            ErrorKind::Execution => ("execution", 422),
            ErrorKind::Timeout => ("timeout", 503),
            ErrorKind::Canceled => ("canceled", 499),
            ErrorKind::Internal => ("internal", 500),
            ErrorKind::Unavailable => ("unavailable", 503),
            ErrorKind::NotFound => ("not_found", 404),
        }
    }
}

/// An error to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// What kind it is.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
}

impl ApiError {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> ApiError {
        ApiError { kind, message: message.to_string() }
    }

    /// The request is at fault.
    pub fn bad_data(message: impl fmt::Display) -> ApiError {
        ApiError::new(ErrorKind::BadData, message)
    }

    /// A parameter is at fault.
    pub fn parameter(name: &str, message: impl fmt::Display) -> ApiError {
        ApiError::bad_data(format!("invalid parameter {name:?}: {message}"))
    }

    /// The server is at fault.
    pub fn internal(message: impl fmt::Display) -> ApiError {
        ApiError::new(ErrorKind::Internal, message)
    }
}

impl From<EvalError> for ApiError {
    fn from(error: EvalError) -> ApiError {
        let kind = match &error {
            EvalError::Timeout => ErrorKind::Timeout,
            EvalError::Canceled | EvalError::CanceledBy(_) | EvalError::Storage(ReadError::Canceled) => {
                ErrorKind::Canceled
            }
            EvalError::Storage(ReadError::Memory(_) | ReadError::SeriesTooLong { .. }) => {
                ErrorKind::Execution
            }
            EvalError::Storage(_) => ErrorKind::Internal,
            _ => ErrorKind::Execution,
        };
        ApiError::new(kind, error)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> ApiError {
        ApiError::from(EvalError::Storage(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (name, status) = self.kind.parts();
        let mut body = br#"{"status":"error","errorType":""#.to_vec();
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(br#"","error":"#);
        json::text(&mut body, &self.message);
        body.push(b'}');
        let mut response = json::response(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.kind == ErrorKind::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
