//! The service over a group in memory, on a paused clock.

mod bad_input;
mod making;
mod pages;
mod truncating;
mod verbs;

use std::sync::Arc;

use common::{Rng, Tasks};
use proto::v1;
use proto::v1::controller_server::Controller;
use tonic::{Request, Status};

use crate::jobs::runner::{Bootstrap, Runner};
use crate::machine::{ControllerMachine, State};
use crate::service::{ControllerService, ServerInfo, ServerStatus};
use crate::settings::ControllerSettings;
use crate::testing::{FakeStores, LocalGroup, containers, machine};

struct Served {
    service: ControllerService,
    group: Arc<LocalGroup>,
    stores: Arc<FakeStores>,
    _tasks: Tasks,
}

struct Dev;

impl ServerStatus for Dev {
    fn info(&self) -> ServerInfo {
        ServerInfo { version: "1.2.3".into(), dev: true, log_used_bytes: 10, log_budget_bytes: 100 }
    }

    fn status(&self) -> v1::GetStatusResponse {
        v1::GetStatusResponse { uptime_micros: 7, ..v1::GetStatusResponse::default() }
    }

    fn look_after_storage(&self) -> u32 {
        3
    }
}

impl Served {
    fn new() -> Self {
        Self::over(machine())
    }

    fn over(machine: ControllerMachine) -> Self {
        let tasks = Tasks::new();
        let group = Arc::new(LocalGroup::leading(machine, 1));
        let stores = Arc::new(FakeStores::default());
        let settings = ControllerSettings::default();
        let mut rng = Rng::from_seed(2);
        let bootstrap = Bootstrap::single(&mut rng, containers());
        let progress = group.machine().progress();
        let runner =
            Runner::new(settings.clone(), group.clone(), stores.clone(), progress, bootstrap);
        let jobs = runner.start(&tasks);
        let service =
            ControllerService::new(settings, group.clone(), jobs, stores.clone(), Arc::new(Dev));
        Self { service, group, stores, _tasks: tasks }
    }

    fn state(&self) -> State {
        self.group.machine().state().clone()
    }

    async fn create(&self, name: &str, segments: u32) -> v1::CreateStreamResponse {
        let request = v1::CreateStreamRequest {
            stream: stream(name),
            config: Some(v1::StreamConfig { segments }),
            create_scope: true,
            token: 0,
        };
        Controller::create_stream(&self.service, Request::new(request)).await.unwrap().into_inner()
    }

    async fn delete(&self, name: &str) {
        let request = v1::DeleteStreamRequest { stream: stream(name), stream_id: 0 };
        Controller::delete_stream(&self.service, Request::new(request)).await.unwrap();
    }

    async fn segments(
        &self,
        name: &str,
        set: v1::SegmentSet,
    ) -> Result<v1::GetSegmentsResponse, Status> {
        let request =
            v1::GetSegmentsRequest { stream: stream(name), set: set.into(), ..Default::default() };
        self.get_segments(request).await
    }

    async fn get_segments(
        &self,
        request: v1::GetSegmentsRequest,
    ) -> Result<v1::GetSegmentsResponse, Status> {
        let answer = Controller::get_segments(&self.service, Request::new(request)).await;
        answer.map(|response| response.into_inner())
    }

    async fn truncate(&self, name: &str, offset: u64) -> Result<(), Status> {
        let tail = self.segments(name, v1::SegmentSet::TailSegments).await?;
        let place =
            |segment: v1::SegmentPlace| v1::SegmentOffset { segment: segment.segment, offset };
        let cut = tail.segments.into_iter().map(place).collect();
        let request = v1::TruncateStreamRequest { stream: stream(name), cut, covers: None };
        Controller::truncate_stream(&self.service, Request::new(request)).await.map(drop)
    }
}

fn stream(name: &str) -> Option<v1::StreamName> {
    let (scope, stream) = name.split_once('/').unwrap();
    Some(v1::StreamName { scope: scope.into(), stream: stream.into() })
}
