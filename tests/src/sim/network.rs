//! Connections between clients and the server: messages in order, late, or lost with their
//! connection.

use proto::v1::{AppendRequest, AppendResponse, Hello, append_request::Message};

use super::world::{Event, World};

#[derive(Debug)]
pub(super) struct Connection {
    client: usize,
    /// When the last message in each direction arrives: messages do not overtake each other.
    to_server: u64,
    to_client: u64,
    /// Microseconds that a message takes at most.
    latency: u64,
}

impl World {
    /// Connects a client; `None` while there is no server.
    pub(super) fn connect(&mut self, client: usize) -> Option<u32> {
        let node = self.node.as_mut().filter(|_| !self.stopping)?;
        let id = self.next_connection;
        self.next_connection += 1;
        node.accept(id);
        let now = self.now();
        let slow = self.chaos && self.random.network.chance(1, 5);
        let latency = if slow { 20_000 } else { 300 };
        let connection = Connection { client, to_server: now, to_client: now, latency };
        self.connections.insert(id, connection);
        self.note(format_args!("client {client} connects as {id}"));
        let hello = Hello {
            library: "simulation".to_owned(),
            version: "0".to_owned(),
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            writer_kept_micros: 0,
        };
        self.send(id, AppendRequest { message: Some(Message::Hello(hello)) });
        Some(id)
    }

    pub(super) fn send(&mut self, id: u32, request: AppendRequest) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let at = now + self.random.network.between(10, connection.latency);
        connection.to_server = connection.to_server.max(at);
        let at = connection.to_server;
        self.schedule.at(at, Event::Request { connection: id, request: Box::new(request) });
    }

    pub(super) fn on_request(&mut self, id: u32, request: AppendRequest) {
        self.note_message(format_args!("request on {id}"), &request);
        if !self.connections.contains_key(&id) {
            self.coverage.late_messages += 1;
        }
        let Some(node) = &mut self.node else { return };
        if let Err(failure) = node.request(id, request) {
            self.problem(format!("the server refuses a client's message: {failure}"));
            return;
        }
        self.deliver_responses();
        self.wake();
    }

    /// Sends out what the server has to say.
    pub(super) fn deliver_responses(&mut self) {
        let Some(node) = &mut self.node else { return };
        for (id, response) in node.take_responses() {
            let now = self.now();
            // The client may be gone while the server does not know it yet.
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let at = now + self.random.network.between(10, connection.latency);
            connection.to_client = connection.to_client.max(at);
            let at = connection.to_client;
            self.note_message(format_args!("answer on {id}"), &response);
            let response = Box::new(response);
            self.schedule.at(at, Event::Response { connection: id, response });
        }
    }

    pub(super) fn on_response(&mut self, id: u32, response: AppendResponse) {
        let Some(client) = self.connections.get(&id).map(|connection| connection.client) else {
            return;
        };
        self.client_hears(client, response);
    }

    /// The client gives the connection up. What it sent may still arrive, later than anything it
    /// sends from now on.
    pub(super) fn disconnect(&mut self, id: u32) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.note(format_args!("connection {id} breaks"));
        self.coverage.disconnects += 1;
        if !self.plan.faults.late_messages || self.random.network.chance(1, 3) {
            self.schedule.retain(
                |event| !matches!(event, Event::Request { connection, .. } if *connection == id),
            );
        }
        let late = self.random.network.between(0, 30_000);
        let closes = connection.to_server.max(self.now()) + late;
        self.schedule.at(closes, Event::ServerCloses { connection: id });
        self.client_loses(connection.client, id);
    }

    pub(super) fn on_server_closes(&mut self, id: u32) {
        if let Some(node) = &mut self.node {
            node.close(id);
        }
    }

    pub(super) fn on_client_closes(&mut self, id: u32) {
        if let Some(connection) = self.connections.remove(&id) {
            self.client_loses(connection.client, id);
        }
    }
}
