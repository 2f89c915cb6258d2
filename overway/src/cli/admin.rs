//! The client of an admin interface: a scheduler's, or a relay's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use overway_scheduler::api::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, BodyReader, RequestBuilder};

use super::failure::Failure;

/// Time for one request.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of the largest answer: routes of a thousand relays.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// Which scheduler to talk to.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// The scheduler's admin interface.
    #[arg(
        long,
        value_name = "URL",
        env = "OVERWAY_ADMIN",
        default_value = "http://127.0.0.1:9400"
    )]
    admin: String,
    /// The file with the admin token, where the scheduler wants one for changes: admin.token of its state directory.
    #[arg(long, value_name = "FILE", env = "OVERWAY_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Which relay to talk to.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// The relay's admin interface.
    #[arg(
        long,
        value_name = "URL",
        env = "OVERWAY_RELAY_ADMIN",
        default_value = "http://127.0.0.1:9401"
    )]
    pub(crate) relay: String,
}

/// Where a process's admin interface is: by what it is, at the usual place, or by its address.
pub(crate) fn node_address(node: &str) -> Result<SocketAddr, String> {
    let address = match node {
        "scheduler" => "127.0.0.1:9400",
        "relay" => "127.0.0.1:9401",
        "edge" => "127.0.0.1:9403",
        other => other,
    };
    address.parse().map_err(|_| "give relay, scheduler, edge or IP:PORT".to_owned())
}

/// Talks to one scheduler or relay.
pub(crate) struct Client {
    base: String,
    /// Who should answer, and which option says where.
    whom: (&'static str, &'static str),
    agent: Agent,
    /// What says that this is the operator, as the header has it.
    authorization: Option<String>,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    pub(crate) fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let mut client = Self::at(&args.admin, ("scheduler", "--admin"))?;
        if let Some(file) = &args.admin_token_file {
            let token = overway_pki::read_admin_token(file).map_err(Failure::configuration)?;
            client.authorization = Some(format!("Bearer {token}"));
        }
        Ok(client)
    }

    /// Makes a client of a relay's interface.
    pub(crate) fn of_relay(args: &RelayArgs) -> Result<Self, Failure> {
        Self::at(&args.relay, ("relay", "--relay"))
    }

    /// Makes a client of any process's interface: what it is, and what says where it is.
    pub(crate) fn at(url: &str, whom: (&'static str, &'static str)) -> Result<Self, Failure> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") {
            return Err(Failure::Configuration(format!(
                "{} {base:?} is no address of an admin interface: give http://IP:PORT",
                whom.1
            )));
        }
        // Interfaces listen on loopback: a proxy of the environment's leads elsewhere.
        let config = Agent::config_builder().http_status_as_error(false).proxy(None);
        let config = config.timeout_global(Some(TIME_MAX)).max_redirects(0);
        Ok(Self { base, whom, agent: config.build().into(), authorization: None })
    }

    /// Where it answers.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Shows the token, if there is one.
    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// `GET`s an answer whose body is to be read as it comes, however long that takes; of server-sent events those
    /// after the one with this id.
    pub(crate) fn get_stream(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<BodyReader<'static>, Failure> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let sent = request.config().timeout_global(None).build().call();
        Ok(self.answered(sent)?.into_body().into_reader())
    }

    /// `POST`s JSON and returns the answer's body to be read as it comes, however long that takes.
    pub(crate) fn post_stream(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<BodyReader<'static>, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let sent = request.config().timeout_global(None).build().send_json(body);
        Ok(self.answered(sent)?.into_body().into_reader())
    }

    /// `GET`s JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let sent = self.agent.get(format!("{}{path}", self.base)).call();
        self.read(sent)
    }

    /// `GET`s bytes.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let sent = self.agent.get(format!("{}{path}", self.base)).call();
        let mut response = self.answered(sent)?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_to_vec().map_err(Failure::failed)
    }

    /// `GET`s text.
    pub(crate) fn text(&self, path: &str) -> Result<String, Failure> {
        let sent = self.agent.get(format!("{}{path}", self.base)).call();
        self.answered(sent)?.body_mut().read_to_string().map_err(Failure::failed)
    }

    /// `GET`s JSON with query parameters.
    pub(crate) fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let pairs = query.iter().copied();
        let sent = self.agent.get(format!("{}{path}", self.base)).query_pairs(pairs).call();
        self.read(sent)
    }

    /// `POST`s JSON.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.signed(self.agent.post(format!("{}{path}", self.base)));
        let sent = request.send_json(body);
        self.read(sent)
    }

    /// `PUT`s JSON.
    pub(crate) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.signed(self.agent.put(format!("{}{path}", self.base)));
        let sent = request.send_json(body);
        self.read(sent)
    }

    /// `DELETE`s.
    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = self.signed(self.agent.delete(format!("{}{path}", self.base)));
        let sent = request.call();
        self.answered(sent).map(|_| ())
    }

    fn read<T: DeserializeOwned>(
        &self,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let mut response = self.answered(sent)?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_json().map_err(|error| {
            Failure::Failed(format!("{} answered what is no answer: {error}", self.base))
        })
    }

    fn answered(
        &self,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Failure> {
        let mut response = sent.map_err(|error| {
            let (who, option) = self.whom;
            Failure::Failed(format!(
                "no {who} answers at {}: {error} (is one running there? {option} says where)",
                self.base
            ))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let error = match response.body_mut().read_json::<ErrorBody>() {
            Ok(ErrorBody { error }) => error,
            Err(_) => format!("{} answered {status}", self.base),
        };
        // What was asked for cannot be, whenever it is asked.
        let is_wrong = matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::UNAUTHORIZED
                | StatusCode::NOT_FOUND
                | StatusCode::UNPROCESSABLE_ENTITY
        );
        Err(if is_wrong { Failure::Configuration(error) } else { Failure::Failed(error) })
    }
}
