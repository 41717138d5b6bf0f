//! Answers in the two shapes of JSON that the driver knows, and no status that it takes for success.
//!
//! The driver raises an error for 400, 401, 403, 404, 405, 409, 500 and 503 and takes every other status
//! for success (Octavia `drivers/haproxy/exceptions.py`, `check_exception`): an error is one of the
//! constructors below or none.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// What goes back to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
/// Of Prometheus.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What the framework of the stock agent says of its own errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// What was to be in the body.
    BadRequest(&'static str),
    NotFound,
    MethodNotAllowed,
    Crashed,
}

impl Answer {
    fn new(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]), body: body.into() }
    }

    /// Any JSON, with 200.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(StatusCode::OK, JSON, body),
            Err(error) => Self::failed("Error writing JSON", &error.to_string()),
        }
    }

    /// `{"message":"OK"}`: stored, or done.
    pub fn ok() -> Self {
        Self::json(&json!({ "message": "OK" }))
    }

    /// The same with details.
    pub fn done(details: &str) -> Self {
        Self::said(StatusCode::OK, "OK", details)
    }

    /// An uploaded configuration, with 200.
    pub fn text(body: String) -> Self {
        Self::new(StatusCode::OK, TEXT, body)
    }

    /// Metrics, with 200.
    pub fn exposition(body: String) -> Self {
        Self::new(StatusCode::OK, EXPOSITION, body)
    }

    /// 400: the driver gives up and the operation fails.
    pub fn invalid(message: &str, details: &str) -> Self {
        Self::said(StatusCode::BAD_REQUEST, message, details)
    }

    /// 404 in JSON, which the driver does not take for an agent that is not ready yet.
    pub fn not_found(message: &str, details: &str) -> Self {
        Self::said(StatusCode::NOT_FOUND, message, details)
    }

    /// The driver asks again until the interface is there; it knows this answer by its text.
    pub fn no_interface_yet() -> Self {
        let details = json!({ "details": "No suitable network interface found" });
        Self { status: StatusCode::NOT_FOUND, ..Self::json(&details) }
    }

    /// The driver takes it for done.
    pub fn exists(message: &str) -> Self {
        Self::message(StatusCode::CONFLICT, message)
    }

    /// 500: the operation fails, and the driver logs the details.
    pub fn failed(message: &str, details: &str) -> Self {
        Self::said(StatusCode::INTERNAL_SERVER_ERROR, message, details)
    }

    /// A message without details.
    pub fn message(status: StatusCode, message: &str) -> Self {
        Self { status, ..Self::json(&json!({ "message": message })) }
    }

    fn said(status: StatusCode, message: &str, details: &str) -> Self {
        let body = json!({ "message": message, "details": details });
        Self { status, ..Self::json(&body) }
    }

    /// An error of the framework, in its own shape (`werkzeug.exceptions`).
    pub fn framework(error: Framework) -> Self {
        let (status, text) = match error {
            Framework::BadRequest(what) => {
                (StatusCode::BAD_REQUEST, format!("400 Bad Request: {what}"))
            }
            Framework::NotFound => (
                StatusCode::NOT_FOUND,
                "404 Not Found: The requested URL was not found on the server.".to_owned(),
            ),
            Framework::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "405 Method Not Allowed: The method is not allowed for the requested URL."
                    .to_owned(),
            ),
            Framework::Crashed => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "500 Internal Server Error: The server encountered an internal error.".to_owned(),
            ),
        };
        let body = json!({ "error": text, "http_code": status.as_u16() });
        Self { status, ..Self::json(&body) }
    }

    /// To `OPTIONS`: the methods of a path, separated by commas.
    pub fn options(methods: &str) -> Self {
        let mut answer = Self::new(StatusCode::OK, HTML, Bytes::new());
        if let Ok(methods) = HeaderValue::from_str(methods) {
            answer.headers.insert(ALLOW, methods);
        }
        answer
    }

    /// Stored, and not yet in force.
    pub fn accepted(self) -> Self {
        Self { status: StatusCode::ACCEPTED, ..self }
    }

    /// With the MD5 of what was stored.
    pub fn with_etag(mut self, md5_hex: &str) -> Self {
        if let Ok(etag) = HeaderValue::from_str(md5_hex) {
            self.headers.insert(ETAG, etag);
        }
        self
    }

    /// To `HEAD`: the headers alone.
    pub fn without_body(self) -> Self {
        Self { body: Bytes::new(), ..self }
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(answer: Answer) -> Self {
        let mut response = Self::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        response
    }
}
