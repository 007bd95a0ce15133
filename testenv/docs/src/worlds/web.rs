//! Servers of the tenant's VMs: HTTP with the VM's name as its answer, and a UDP echo.

use std::io::{self, BufReader, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use fiberlb_lab::Vm;

const HTTP: u16 = 8080;
const ECHO: u16 = 5353;
/// A client that sends nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves in a VM until this process ends; with the lab, the sockets receive nothing more.
pub(crate) fn serve(vm: &Vm) -> io::Result<()> {
    let address = vm.ipv4().map_err(io::Error::other)?;
    let listener = vm.tcp_listener((IpAddr::from([0, 0, 0, 0]), HTTP).into())?;
    let socket = vm.udp_socket((address, ECHO).into())?;
    let name = vm.name().to_owned();
    thread::Builder::new().name(format!("http {name}")).spawn(move || accept(&listener, &name))?;
    thread::Builder::new().name("echo".to_owned()).spawn(move || echo(&socket))?;
    Ok(())
}

fn accept(listener: &TcpListener, name: &str) {
    while let Ok((stream, _)) = listener.accept() {
        let name = name.to_owned();
        // Without a thread for it, the connection is closed: its client sees that.
        let _ = thread::Builder::new().spawn(move || converse(&stream, &name));
    }
}

/// One connection: answers each request until the client closes or asks for it.
fn converse(stream: &TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = head(&mut reader)? {
        let closes = head.iter().any(|line| line.eq_ignore_ascii_case("connection: close"));
        let body = if head.first().is_some_and(|line| line.starts_with("HEAD ")) { "" } else { name };
        let length = name.len() + 1;
        let end = if body.is_empty() { "" } else { "\n" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}{end}"
        );
        (&mut &*stream).write_all(answer.as_bytes())?;
        if closes {
            break;
        }
    }
    Ok(())
}

/// The lines of a request up to the blank one; `None` once the client has closed. A body is not looked for.
fn head(reader: &mut impl io::BufRead) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => return Ok(Some(lines)),
            text => lines.push(text.to_owned()),
        }
    }
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error of an earlier answer comes back as an error of the socket; it concerns that client alone.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), client);
    }
}
