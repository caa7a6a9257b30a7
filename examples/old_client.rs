//! An old client to try by hand: subscribes to a subject, prints each message, and publishes each typed line.
//!
//! `cargo run -p examples --example old_client -- 127.0.0.1:4222 greetings`

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::error::Error;
use std::io::BufRead;
use std::time::Duration;

use examples::OldClient;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:4222".to_owned());
    let subject = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    let mut client = OldClient::connect(&*address)?;
    client.subscribe(&subject, 1)?;
    println!("connected to {address}, subscribed to {subject}; type a line to publish it");
    let mut publisher = client.second_handle()?;
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Err(error) = publisher.publish(&subject, &line) {
                return println!("cannot publish: {error}");
            }
        }
    });
    loop {
        if let Some(message) = client.next(Duration::from_secs(3600))? {
            println!(
                "{}: {}",
                message.subject,
                String::from_utf8_lossy(&message.payload)
            );
        }
    }
}
