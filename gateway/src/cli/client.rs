//! Talking to a running gateway's admin port.

use serde::de::DeserializeOwned;

use super::{AdminPort, Failure};

/// The admin port of a running gateway.
pub struct Client {
    base: String,
    agent: ureq::Agent,
    authorization: Option<String>,
}

impl Client {
    /// To where `admin` says, with its token.
    pub fn new(admin: &AdminPort) -> Result<Self, Failure> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(std::time::Duration::from_secs(30)))
            .http_status_as_error(false)
            .build()
            .into();
        let authorization = match &admin.admin_token_file {
            None => None,
            Some(path) => {
                let token = std::fs::read_to_string(path)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                Some(format!("Bearer {}", token.trim()))
            }
        };
        Ok(Self {
            base: format!("http://{}", admin.admin),
            agent,
            authorization,
        })
    }

    fn with_token<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    /// A JSON answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self
            .with_token(self.agent.get(format!("{}{path}", self.base)))
            .call();
        Ok(self.answer(response)?.body_mut().read_json()?)
    }

    /// Asks for something to be done.
    pub fn post(&self, path: &str) -> Result<(), Failure> {
        let response = self
            .with_token(self.agent.post(format!("{}{path}", self.base)))
            .send_empty();
        self.answer(response).map(|_| ())
    }

    /// Asks for something to be removed.
    pub fn delete(&self, path: &str) -> Result<(), Failure> {
        let response = self
            .with_token(self.agent.delete(format!("{}{path}", self.base)))
            .call();
        self.answer(response).map(|_| ())
    }

    fn answer(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut response = response.map_err(|e| {
            format!(
                "no gateway answers at {}: {e}; is it running? its admin.listen is the address to give with --admin",
                self.base
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        Err(format!("{} ({})", text.trim(), response.status()).into())
    }
}
