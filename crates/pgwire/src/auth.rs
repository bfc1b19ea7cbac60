//! Login: start-up packet, authentication, and the server's account of itself.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::config::{Config, Secret};
use crate::connection::Connection;
use crate::error::Error;

/// What the login may rely on.
pub(crate) struct Channel {
    /// The connection cannot be overheard.
    pub(crate) confidential: bool,
    /// The `tls-server-end-point` channel binding.
    pub(crate) binding: Option<Vec<u8>>,
}

/// Logs in; returns when the server is ready for a query.
pub(crate) async fn log_in(
    connection: &mut Connection,
    config: &Config,
    channel: Channel,
) -> Result<(), Error> {
    let mut parameters = vec![
        ("user", config.user.as_str()),
        ("client_encoding", "UTF8"),
        // Text values must not depend on how the server or role is configured.
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("application_name", config.application_name.as_str()),
    ];
    if config.replication {
        parameters.push(("replication", "true"));
    } else {
        // A belt that people put on standbys and roles; who writes here means to. A standby refuses writes whatever this says.
        parameters.push(("default_transaction_read_only", "off"));
        if let Some(database) = &config.database {
            parameters.push(("database", database));
        }
    }
    frontend::startup_message(parameters, connection.writer.queue())
        .map_err(|_| Error::NulInText)?;
    connection.flush().await?;
    Login {
        connection,
        config,
        channel,
    }
    .run()
    .await
}

struct Login<'a> {
    connection: &'a mut Connection,
    config: &'a Config,
    channel: Channel,
}

impl Login<'_> {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            match self.connection.receive().await? {
                Message::AuthenticationOk => {}
                Message::AuthenticationCleartextPassword => {
                    // libpq sends it over anything; a password in the clear on a network is not
                    // worth a login.
                    if !self.channel.confidential {
                        return Err(self.unsupported("a clear-text password without TLS"));
                    }
                    let password = self.password()?;
                    self.send_password(password.expose()).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let password = self.password()?;
                    let user = self.config.user.as_bytes();
                    let hash = md5_hash(user, password.expose().as_bytes(), body.salt());
                    self.send_password(&hash).await?;
                }
                Message::AuthenticationSasl(body) => self.scram(&body).await?,
                Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => {
                    return Err(self.unsupported("GSSAPI"));
                }
                Message::AuthenticationSspi => return Err(self.unsupported("SSPI")),
                Message::AuthenticationKerberosV5 | Message::AuthenticationScmCredential => {
                    return Err(self.unsupported("a method that PostgreSQL has given up"));
                }
                Message::BackendKeyData(body) => {
                    self.connection.session.backend = Some((body.process_id(), body.secret_key()));
                }
                Message::ErrorResponse(body) => {
                    return Err(self.connection.server_error(&body));
                }
                Message::ReadyForQuery(body) => {
                    self.connection.session.finish(body.status());
                    return Ok(());
                }
                _ => {
                    return Err(self
                        .connection
                        .unexpected("a message out of place in the login"));
                }
            }
        }
    }

    async fn scram(&mut self, offered: &AuthenticationSaslBody) -> Result<(), Error> {
        let offered: Vec<&str> = offered
            .mechanisms()
            .collect()
            .map_err(|error| self.connection.io_error(error))?;
        let plus = offered.contains(&SCRAM_SHA_256_PLUS);
        let (mechanism, binding) = match self.channel.binding.take() {
            Some(binding) if plus => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(binding),
            ),
            _ if !offered.contains(&SCRAM_SHA_256) => {
                return Err(self.unsupported(&format!("SASL {}", offered.join(", "))));
            }
            // Says that we could have bound: a server that did offer it then knows that somebody
            // took the offer away.
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        let password = self.password()?;
        let mut scram = ScramSha256::new(password.expose().as_bytes(), binding);
        let queue = self.connection.writer.queue();
        frontend::sasl_initial_response(mechanism, scram.message(), queue)
            .map_err(|error| self.connection.io_error(error))?;
        self.connection.flush().await?;
        match self.connection.receive().await? {
            Message::AuthenticationSaslContinue(body) => {
                scram
                    .update(body.data())
                    .map_err(|error| self.scram_failed(error))?;
            }
            Message::ErrorResponse(body) => return Err(self.connection.server_error(&body)),
            _ => return Err(self.connection.unexpected("no SCRAM challenge")),
        }
        frontend::sasl_response(scram.message(), self.connection.writer.queue())
            .map_err(|error| self.connection.io_error(error))?;
        self.connection.flush().await?;
        match self.connection.receive().await? {
            Message::AuthenticationSaslFinal(body) => scram
                .finish(body.data())
                .map_err(|error| self.scram_failed(error)),
            Message::ErrorResponse(body) => Err(self.connection.server_error(&body)),
            _ => Err(self.connection.unexpected("no end of the SCRAM exchange")),
        }
    }

    async fn send_password(&mut self, text: &str) -> Result<(), Error> {
        frontend::password_message(text.as_bytes(), self.connection.writer.queue())
            .map_err(|_| Error::NulInText)?;
        self.connection.flush().await
    }

    fn password(&self) -> Result<Secret, Error> {
        self.config
            .password
            .clone()
            .ok_or_else(|| Error::PasswordRequired {
                target: self.config.target(),
                user: self.config.user.clone(),
            })
    }

    fn unsupported(&self, method: &str) -> Error {
        Error::AuthenticationMethod {
            target: self.config.target(),
            user: self.config.user.clone(),
            method: method.to_owned(),
        }
    }

    fn scram_failed(&self, source: std::io::Error) -> Error {
        Error::Scram {
            target: self.config.target(),
            user: self.config.user.clone(),
            source,
        }
    }
}
