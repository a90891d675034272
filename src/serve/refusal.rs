//! Answers to requests that are not done, as the OpenAI API words them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// A stable word for programs.
    pub(super) code: &'static str,
    /// Human-readable: what is wrong, where, and what to write instead.
    pub(super) message: String,
    /// The key of the request that is at fault.
    pub(super) key: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), key: None }
    }

    /// A request that is wrong at one of its keys.
    pub(super) fn at(key: &str, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { key: Some(key.into()), ..Refusal::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// What the model or the engine has against a request.
    pub(super) fn of(error: &skipc_runtime::Error) -> Refusal {
        use skipc_runtime::Error;
        let status = match error {
            Error::EmptyPrompt
            | Error::SequenceTooLong { .. }
            | Error::TokenRange { .. }
            | Error::Usage(_)
            | Error::Tokenizer { .. }
            | Error::ChatTemplate { .. }
            | Error::NoChatTemplate
            | Error::CacheFull { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = match error {
            // The word by which clients know that a conversation has become too long.
            Error::SequenceTooLong { .. } => "context_length_exceeded",
            error => error.code(),
        };
        Refusal::new(status, code, error.to_string())
    }

    /// The engine has ended while the request ran: it is being stopped, or has failed.
    pub(super) fn ended() -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "the server stops; the request was not completed",
        )
    }

    pub(super) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.key, "code": self.code}})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
