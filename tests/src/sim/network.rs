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
    /// What went to the server, in order.
    sent: Vec<AppendRequest>,
}

impl Connection {
    pub(super) fn take_sent(&mut self) -> Vec<AppendRequest> {
        std::mem::take(&mut self.sent)
    }
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
        let sent = Vec::new();
        let connection = Connection { client, to_server: now, to_client: now, latency, sent };
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
        if self.clients[connection.client].closes() {
            connection.sent.push(request.clone());
        }
        self.schedule.at(at, Event::Request { connection: id, request: Box::new(request) });
    }

    pub(super) fn on_request(&mut self, id: u32, request: AppendRequest) {
        self.note_message(format_args!("request on {id}"), &request);
        if matches!(request.message, Some(Message::Close(_))) {
            self.coverage.closes += 1;
        }
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
        let Some(mut connection) = self.connections.remove(&id) else { return };
        self.note(format_args!("connection {id} breaks"));
        self.clients[connection.client].lost = connection.take_sent();
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

    /// The client has no more to say than `message`, if anything.
    pub(super) fn hang_up(&mut self, id: u32, message: Option<Message>) {
        if let Some(message) = message {
            self.send(id, AppendRequest { message: Some(message) });
        }
        let Some(connection) = self.connections.get(&id) else { return };
        self.schedule.at(connection.to_server + 100, Event::ServerCloses { connection: id });
    }

    /// What a writer sent that has closed its sessions since comes once more, as late messages of
    /// an earlier connection would.
    pub(super) fn on_echo(&mut self, requests: Vec<AppendRequest>) {
        let Some(node) = self.node.as_mut().filter(|_| !self.stopping) else { return };
        let id = self.next_connection;
        self.next_connection += 1;
        node.accept(id);
        self.coverage.echoes += 1;
        self.note(format_args!("{} messages come once more, as {id}", requests.len()));
        for request in requests {
            self.schedule.after(1, Event::Request { connection: id, request: Box::new(request) });
        }
        self.schedule.after(20_000, Event::ServerCloses { connection: id });
    }

    pub(super) fn on_server_closes(&mut self, id: u32) {
        self.connections.remove(&id);
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
