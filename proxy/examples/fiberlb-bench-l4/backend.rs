//! The backends: echo, and streams.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::world::BACKEND;

/// Ports that return what they get.
pub(crate) const ECHO: [u16; 4] = [9001, 9002, 9003, 9004];
/// Port that sends as many bytes as the eight bytes say that it gets.
pub(crate) const STREAM: u16 = 9010;
/// Port that returns datagrams.
pub(crate) const DATAGRAMS: u16 = 9020;

/// Serves for as long as the process lives.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn serve() -> anyhow::Result<()> {
    for port in ECHO {
        let listener = TcpListener::bind((BACKEND, port)).await?;
        tokio::spawn(accept(listener, |stream| async { drop(echo(stream).await) }));
    }
    let listener = TcpListener::bind((BACKEND, STREAM)).await?;
    tokio::spawn(accept(listener, |stream| async { drop(send(stream).await) }));
    let socket = UdpSocket::bind((BACKEND, DATAGRAMS)).await?;
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            // What cannot be sent is lost, as datagrams may be; a client that has gone is an error of the next call.
            if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..length], from).await;
            }
        }
    });
    println!("ready");
    std::future::pending().await
}

async fn accept<F: Future<Output = ()> + Send + 'static>(listener: TcpListener, serve: fn(TcpStream) -> F) {
    while let Ok((stream, _)) = listener.accept().await {
        // No latency of Nagle's is measured.
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream));
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn send(mut stream: TcpStream) -> std::io::Result<()> {
    let mut left = stream.read_u64().await?;
    let buffer = vec![0; 256 * 1024];
    while left > 0 {
        let length = left.min(buffer.len() as u64);
        stream.write_all(&buffer[..length as usize]).await?;
        left -= length;
    }
    Ok(())
}
