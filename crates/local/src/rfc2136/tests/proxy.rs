//! A proxy that loses updates and their answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one update.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// It never arrives.
    Request,
    /// It is made, and the answer never arrives.
    Answer,
    /// It never arrives, and somebody else answers that it has been made.
    Forged,
}

/// Forwards to a server; takes the losses of updates one by one, and loses nothing when they are
/// used up.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
}

impl Proxy {
    pub(super) async fn start(server: SocketAddr, losses: &[Loss]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let losses = Arc::new(Mutex::new(VecDeque::from(losses.to_vec())));
        // Ends with the test's runtime, as what it spawns does.
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                client.set_nodelay(true).unwrap();
                tokio::spawn(forward(client, server, Arc::clone(&losses)));
            }
        });
        Self { address }
    }
}

async fn forward(
    mut client: TcpStream,
    server: SocketAddr,
    losses: Arc<Mutex<VecDeque<Loss>>>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    loop {
        let mut request = read(&mut client).await?;
        let is_update = (request[2] >> 3) & 15 == 5;
        let loss = if is_update {
            losses.lock().unwrap().pop_front()
        } else {
            None
        };
        match loss {
            Some(Loss::Request) => return Ok(()),
            Some(Loss::Forged) => {
                // The header alone: an answer, without error, without records.
                request.truncate(12);
                request[2] |= 0x80;
                request[4..].fill(0);
                write(&mut client, &request).await?;
                continue;
            }
            Some(Loss::Answer) => {
                write(&mut server, &request).await?;
                read(&mut server).await?;
                return Ok(());
            }
            None => {}
        }
        write(&mut server, &request).await?;
        let answer = read(&mut server).await?;
        write(&mut client, &answer).await?;
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream
        .write_u16(u16::try_from(message.len()).unwrap())
        .await?;
    stream.write_all(message).await
}
