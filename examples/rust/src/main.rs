//! Imports two clients, sends them a mailing and follows every message to its end.
//!
//!     cargo run -- http://127.0.0.1:50051
//!
//! A token goes into MAILING_TOKEN. When the stream breaks, it is opened again behind the last response
//! that was handled, on any replica.

use std::collections::HashSet;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub mod mailing {
    tonic::include_proto!("mailing.v1");
}

use mailing::client_service_client::ClientServiceClient;
use mailing::delivery_service_client::DeliveryServiceClient;
use mailing::mailing_service_client::MailingServiceClient;
use mailing::{
    Client, ClientFilter, CreateMailingRequest, ImportClientsRequest, Mailing, WatchMessagesRequest,
};

const TAG: &str = "rust";

/// Returns the request with the bearer token, if there is one.
fn authorized<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(token) = std::env::var("MAILING_TOKEN") {
        let value: MetadataValue<_> = format!("Bearer {token}")
            .parse()
            .expect("a token without line breaks");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

async fn connect(address: String) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(address)?
        .keep_alive_while_idle(true)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .connect()
        .await
}

async fn import(channel: Channel) -> Result<usize, Status> {
    let clients = ["70100000001", "70100000002"].map(|phone| Client {
        phone: phone.into(),
        timezone: "UTC".into(),
        tag: TAG.into(),
        ..Default::default()
    });
    let requests = tokio_stream::iter([ImportClientsRequest {
        clients: clients.into(),
        ..Default::default()
    }]);
    let answer = ClientServiceClient::new(channel)
        .import_clients(authorized(requests))
        .await?
        .into_inner();
    Ok((answer.created + answer.updated + answer.unchanged) as usize)
}

async fn create(channel: Channel) -> Result<i64, Status> {
    let mailing = Mailing {
        text: "Hello {phone}".into(),
        filter: Some(ClientFilter {
            tags: vec![TAG.into()],
            ..Default::default()
        }),
        audience_mode: mailing::mailing::AudienceMode::Snapshot as i32,
        ..Default::default()
    };
    let request = CreateMailingRequest {
        mailing: Some(mailing),
        ..Default::default()
    };
    let answer = MailingServiceClient::new(channel)
        .create_mailing(authorized(request))
        .await?
        .into_inner();
    Ok(answer.mailing.expect("a response wraps its resource").id)
}

/// Prints the changes of a mailing's messages until `expected` messages have ended.
async fn watch(channel: Channel, mailing_id: i64, expected: usize) -> Result<(), Status> {
    let (mut service, mut token) = (DeliveryServiceClient::new(channel), String::new());
    let mut ended = HashSet::new();
    while ended.len() < expected {
        let request = WatchMessagesRequest {
            mailing_id,
            from_start: token.is_empty(),
            resume_token: token.clone(),
            ..Default::default()
        };
        let mut responses = service
            .watch_messages(authorized(request))
            .await?
            .into_inner();
        loop {
            match responses.message().await {
                Ok(Some(response)) => {
                    for change in &response.changes {
                        // What came after the last token comes again on a new stream.
                        if ended.insert(change.message_id) {
                            println!("{} {}", change.client_id, change.status().as_str_name());
                        }
                    }
                    token = response.resume_token;
                }
                Ok(None) => break,
                Err(status) if status.code() == Code::Unavailable => break,
                Err(status) => return Err(status),
            }
            if ended.len() >= expected {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "http://127.0.0.1:50051".into());
    let channel = connect(address).await?;
    let clients = import(channel.clone()).await?;
    let mailing_id = create(channel.clone()).await?;
    println!("mailing {mailing_id} to {clients} clients");
    watch(channel, mailing_id, clients).await?;
    Ok(())
}
