//! What a supervisor's callers ask, and what they are told: calls, cancellations, listeners, the end.
//!
//! Must not know: how a sandbox is built.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::supervise::{Call, Supervisor};
use crate::frame::{Connection, Kind, MAX_BODY_BYTES, Packet};
use crate::network::NetworkPlan;
use crate::spool::{Failure, Finding, is_effect_name};
use crate::supervisor::Refusal;

const MAX_CLIENTS: usize = 16;
const MAX_CALLS: usize = 256;
/// A caller that does not read loses its connection at this point; its results stay in the log.
const MAX_BACKLOG: usize = 2 * MAX_BODY_BYTES;

impl Supervisor<'_> {
    pub(super) fn welcome(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((socket, _)) = listener.accept() {
            let own = rustix::process::geteuid();
            let is_friend =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
            if !is_friend || self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            if let Ok(connection) = Connection::new(socket) {
                self.clients.insert(self.next_client, connection);
                self.next_client += 1;
            }
        }
    }

    pub(super) fn hear_client(&mut self, client: u64) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        let mut is_open = connection.flush().is_ok() && connection.fill().unwrap_or(false);
        loop {
            let Some(connection) = self.clients.get_mut(&client) else {
                return;
            };
            match connection.next_packet() {
                Ok(Some(packet)) => self.obey(client, packet),
                Ok(None) => break,
                Err(_) => {
                    is_open = false;
                    break;
                }
            }
        }
        if !is_open {
            self.part_from(client);
        }
    }

    fn part_from(&mut self, client: u64) {
        self.clients.remove(&client);
        self.subscribers.retain(|subscriber| subscriber.0 != client);
        for call in self.calls.values_mut() {
            call.waiters.retain(|waiter| waiter.0 != client);
        }
        if self.is_idle() {
            self.idle_since = Instant::now();
        }
    }

    fn obey(&mut self, client: u64, packet: Packet) {
        let number = packet.number;
        match packet.kind {
            Kind::Call => {
                if let Err(refusal) = self.call(client, packet) {
                    self.refuse(client, number, &refusal);
                }
            }
            Kind::Cancel => {
                let call = std::str::from_utf8(&packet.body).ok().and_then(|name| self.numbers.get(name));
                if let (Some(call), Some(sandbox)) = (call, &mut self.sandbox) {
                    let _ = sandbox.worker.send(&Packet::new(Kind::Cancel, *call, Vec::new()));
                }
                self.answer(client, &Packet::new(Kind::Done, number, Vec::new()));
            }
            Kind::Stop => {
                self.is_stopping = true;
                self.stop_waiters.push((client, number));
            }
            Kind::Listeners => {
                if let Err(refusal) = self.subscribe(client, number) {
                    self.refuse(client, number, &refusal);
                }
            }
            Kind::Reply | Kind::Failed | Kind::Done | Kind::Reached => self.part_from(client),
        }
    }

    /// Hands over the listener of the present sandbox, and later that of each new one.
    fn subscribe(&mut self, client: u64, number: u64) -> Result<(), Refusal> {
        if self.plan.network == NetworkPlan::Off {
            self.answer(client, &Packet::new(Kind::Done, number, Vec::new()));
            return Ok(());
        }
        let is_new = self.sandbox.is_none();
        self.subscribers.push((client, number));
        let started = self.ensure_sandbox().map(drop);
        match started {
            // A new sandbox has told everybody already.
            Ok(()) if is_new => Ok(()),
            Ok(()) => {
                self.send_listener(client, number);
                Ok(())
            }
            Err(refusal) => {
                self.subscribers.retain(|subscriber| *subscriber != (client, number));
                Err(refusal)
            }
        }
    }

    /// Hands the listener of a new sandbox to all who asked for it.
    pub(super) fn announce_listener(&mut self) {
        for (client, number) in self.subscribers.clone() {
            self.send_listener(client, number);
        }
    }

    fn send_listener(&mut self, client: u64, number: u64) {
        let listener = self.sandbox.as_ref().and_then(|sandbox| sandbox.listener.as_ref());
        let (Some(listener), Some(connection)) = (listener, self.clients.get_mut(&client)) else { return };
        let packet = Packet::new(Kind::Done, number, Vec::new());
        if connection.send_with(&packet, listener.as_fd()).is_err() {
            self.part_from(client);
        }
    }

    fn call(&mut self, client: u64, packet: Packet) -> Result<(), Refusal> {
        let mut body = packet.body;
        let name_end = 1 + usize::from(*body.first().ok_or(Refusal::Malformed)?);
        if body.len() < name_end || body.len() - name_end > MAX_BODY_BYTES {
            return Err(Refusal::Malformed);
        }
        let request = body.split_off(name_end);
        let effect = String::from_utf8(body.split_off(1)).map_err(|_| Refusal::Malformed)?;
        if !is_effect_name(&effect) {
            return Err(Refusal::Malformed);
        }
        if let Some(call) = self.numbers.get(&effect).and_then(|number| self.calls.get_mut(number)) {
            call.waiters.push((client, packet.number));
            return Ok(());
        }
        match self.spool.recall(&effect) {
            Finding::NotStarted => {}
            Finding::Done(reply) => {
                self.answer(client, &Packet::new(Kind::Reply, packet.number, reply));
                return Ok(());
            }
            Finding::Failed(failure) => return Err(Refusal::Failed(failure)),
            Finding::Running | Finding::Unknown => return Err(Refusal::Unknown),
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(Refusal::TooManyCalls);
        }
        let wall = self.plan.limits.wall;
        let sandbox = self.ensure_sandbox()?;
        sandbox.memory_kills = sandbox.inside.memory_kills();
        let cpu_at_start = sandbox.cpu;
        self.spool.start(&effect).map_err(|error| Refusal::Log { errno: error.raw_os_error() })?;
        let number = self.next_call;
        self.next_call += 1;
        self.numbers.insert(effect.clone(), number);
        if let Some(disk) = &mut self.disk {
            disk.hurry();
        }
        let waiters = vec![(client, packet.number)];
        self.calls
            .insert(number, Call { effect, waiters, deadline: Instant::now() + wall, cpu_at_start, reached: None });
        let sandbox = self.ensure_sandbox()?;
        if !sandbox.is_active {
            sandbox.is_active = true;
            sandbox.inside.set_active(true);
        }
        // A worker that is dying is noticed by its end, which answers the call.
        let _ = sandbox.worker.send(&Packet::new(Kind::Call, number, request));
        Ok(())
    }

    pub(super) fn hear_worker(&mut self) {
        let Some(sandbox) = &mut self.sandbox else { return };
        let is_open = sandbox.worker.flush().is_ok() && sandbox.worker.fill().unwrap_or(false);
        loop {
            let Some(sandbox) = &mut self.sandbox else { return };
            match sandbox.worker.next_packet() {
                Ok(Some(Packet { kind: Kind::Reply, number, body })) => self.finish_call(number, body),
                Ok(Some(Packet { kind: Kind::Reached, number, .. })) => self.say_reached(number),
                Ok(Some(_)) => {}
                Ok(None) => break,
                // It speaks nonsense, so its replies can no longer be told apart.
                Err(_) => return self.bury(Failure::WorkerDied),
            }
        }
        if !is_open {
            self.bury(self.cause_of_death());
        }
    }

    /// Tells the worker what limit was reached during a call.
    fn say_reached(&mut self, number: u64) {
        // Pid 1 speaks before it ends anything, so what it has to say about a death is there already.
        self.hear_all_of_pid_one();
        let reached = self.calls.get(&number).and_then(|call| call.reached);
        let body = serde_json::to_vec(&reached).unwrap_or_default();
        if let Some(sandbox) = &mut self.sandbox {
            // A worker that is dying is noticed by its end.
            let _ = sandbox.worker.send(&Packet::new(Kind::Reached, number, body));
        }
    }

    fn finish_call(&mut self, number: u64, body: Vec<u8>) {
        let Some(call) = self.forget_call(number) else { return };
        // First remember, then tell. If the disk is full the caller still learns the reply, but a caller that crashes now will
        // find the effect's end unknown.
        let _ = self.spool.reply(&call.effect, &body);
        for (client, number) in call.waiters {
            self.answer(client, &Packet::new(Kind::Reply, number, body.clone()));
        }
    }

    pub(super) fn fail_call(&mut self, number: u64, failure: Failure) {
        let Some(call) = self.forget_call(number) else { return };
        let _ = self.spool.fail(&call.effect, failure);
        for (client, number) in call.waiters {
            self.refuse(client, number, &Refusal::Failed(failure));
        }
    }

    pub(super) fn forget_call(&mut self, number: u64) -> Option<Call> {
        let call = self.calls.remove(&number)?;
        self.numbers.remove(&call.effect);
        let now = Instant::now();
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.quiet_since = now;
        }
        self.idle_since = now;
        Some(call)
    }

    pub(super) fn drop_sandbox(&mut self) {
        // Kills and reaps, then lets the placeholders go.
        self.sandbox = None;
    }

    /// Ends the sandbox and answers all that was running in it.
    pub(super) fn bury(&mut self, failure: Failure) {
        self.drop_sandbox();
        let numbers: Vec<u64> = self.calls.keys().copied().collect();
        for number in numbers {
            self.fail_call(number, failure);
        }
    }

    fn refuse(&mut self, client: u64, number: u64, refusal: &Refusal) {
        let body = serde_json::to_vec(refusal).unwrap_or_default();
        self.answer(client, &Packet::new(Kind::Failed, number, body));
    }

    fn answer(&mut self, client: u64, packet: &Packet) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        if connection.send(packet).is_err() || connection.backlog() > MAX_BACKLOG {
            self.part_from(client);
        }
    }

    /// Ends everything, tells everybody, and makes the place free.
    pub(super) fn close(&mut self) {
        self.bury(Failure::Stopped);
        self.listener = None;
        let _ = std::fs::remove_file("sock");
        for (client, number) in std::mem::take(&mut self.stop_waiters) {
            self.answer(client, &Packet::new(Kind::Done, number, Vec::new()));
        }
        // What still waits to be sent gets a moment; it is in the log anyway.
        for connection in self.clients.values_mut() {
            if connection.backlog() > 0 {
                let socket = connection.socket();
                let _ = socket.set_nonblocking(false);
                let _ = socket.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = connection.flush();
            }
        }
    }
}
