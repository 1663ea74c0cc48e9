//! The part that knows streams and names.

use bytes::Bytes;
use common::SegmentId;
use proto::convert::SegmentPlace;
use proto::error::{Reason, status};
use proto::v1;
use proto::v1::controller_server::Controller;
use tonic::{Request, Response, Status};

use super::{Fake, State};
use crate::session::tests::model::ModelStore;

/// Items of a page: small, so that listings have several.
const PAGE_ITEMS: usize = 2;

impl Fake {
    fn stream_of<'a>(
        state: &'a State,
        name: Option<&v1::StreamName>,
    ) -> Result<&'a ModelStore, Status> {
        let name = full_name(name);
        let missing = || status(Reason::StreamNotFound, format!("stream `{name}` does not exist"));
        state.streams.get(&name).ok_or_else(missing)
    }
}

fn full_name(name: Option<&v1::StreamName>) -> String {
    name.map(|name| format!("{}/{}", name.scope, name.stream)).unwrap()
}

fn page(token: &str, total: usize) -> (std::ops::Range<usize>, String) {
    let from = token.parse().unwrap_or(0);
    let to = (from + PAGE_ITEMS).min(total);
    (from..to, if to < total { to.to_string() } else { String::new() })
}

#[tonic::async_trait]
impl Controller for Fake {
    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        self.check_up()?;
        Ok(Response::new(v1::GetServerInfoResponse {
            version: "fake".to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            ..v1::GetServerInfoResponse::default()
        }))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Err(Status::unimplemented("the fake is always well"))
    }

    async fn look_after_storage(
        &self,
        _: Request<v1::LookAfterStorageRequest>,
    ) -> Result<Response<v1::LookAfterStorageResponse>, Status> {
        Err(Status::unimplemented("the fake has no objects"))
    }

    async fn create_scope(
        &self,
        request: Request<v1::CreateScopeRequest>,
    ) -> Result<Response<v1::CreateScopeResponse>, Status> {
        let scope = request.into_inner().scope;
        let mut state = self.state();
        let created = !state.scopes.contains(&scope);
        if created {
            state.scopes.push(scope);
        }
        state.managed.answer(v1::CreateScopeResponse { created })
    }

    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> Result<Response<v1::ListScopesResponse>, Status> {
        let token = request.into_inner().page.unwrap_or_default().token;
        let state = self.state();
        let (range, next_token) = page(&token, state.scopes.len());
        let scopes = state.scopes[range].to_vec();
        Ok(Response::new(v1::ListScopesResponse { scopes, next_token }))
    }

    async fn get_segments(
        &self,
        request: Request<v1::GetSegmentsRequest>,
    ) -> Result<Response<v1::GetSegmentsResponse>, Status> {
        self.check_up()?;
        let request = request.into_inner();
        let mut state = self.state();
        let behind_page = state.behind_page.take();
        let store = Self::stream_of(&state, request.stream.as_ref())?;
        let places: Vec<SegmentPlace> = match request.set() {
            v1::SegmentSet::HeadSegments => store.head(),
            v1::SegmentSet::FirstSegments => store.first(),
            v1::SegmentSet::ActiveSegments => store.active(),
            _ if store.active().is_empty() => store.head(),
            _ => store.active(),
        };
        let token = request.page.unwrap_or_default().token;
        if token.parse().is_ok_and(|from: usize| from >= places.len()) {
            return Err(status(Reason::OutOfRange, "the segments changed since the first page"));
        }
        let (range, next_token) = page(&token, places.len());
        let sealed = store.active().is_empty();
        let answer = v1::GetSegmentsResponse {
            stream_id: 7,
            epoch: 0,
            state: if sealed { v1::StreamState::Sealed } else { v1::StreamState::Active } as i32,
            segments: places[range].iter().cloned().map(Into::into).collect(),
            next_token,
        };
        if let Some(change) = behind_page {
            let name = full_name(request.stream.as_ref());
            change(state.streams.get_mut(&name).unwrap());
        }
        Ok(Response::new(answer))
    }

    async fn get_successors(
        &self,
        request: Request<v1::GetSuccessorsRequest>,
    ) -> Result<Response<v1::GetSuccessorsResponse>, Status> {
        self.check_up()?;
        let request = request.into_inner();
        let id: SegmentId = request.segment.unwrap().into();
        let state = self.state();
        let segment = state.streams.values().find_map(|store| store.segments.get(&id));
        let all: Vec<_> =
            segment.and_then(|segment| segment.successors.clone()).unwrap_or_default();
        let (range, next_token) = page(&request.page.unwrap_or_default().token, all.len());
        let successors = all[range].iter().cloned().map(Into::into).collect();
        Ok(Response::new(v1::GetSuccessorsResponse { successors, next_token }))
    }

    async fn locate_segments(
        &self,
        request: Request<v1::LocateSegmentsRequest>,
    ) -> Result<Response<v1::LocateSegmentsResponse>, Status> {
        self.check_up()?;
        let mut answer = v1::LocateSegmentsResponse::default();
        let state = self.state();
        for id in request.into_inner().segments {
            let found = state.streams.values().find_map(|store| store.segments.get(&id.into()));
            let Some(segment) = found else { continue };
            let place = segment.place.clone().into();
            if segment.truncated { &mut answer.truncated } else { &mut answer.segments }
                .push(place);
        }
        Ok(Response::new(answer))
    }

    async fn list_writers(
        &self,
        _: Request<v1::ListWritersRequest>,
    ) -> Result<Response<v1::ListWritersResponse>, Status> {
        Err(Status::unimplemented("the fake is not asked for writers"))
    }

    async fn describe_writer(
        &self,
        request: Request<v1::DescribeWriterRequest>,
    ) -> Result<Response<v1::DescribeWriterResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let key = (full_name(request.stream.as_ref()), request.writer);
        let known = state.writers.get(&key);
        let (epoch, mode) =
            *known.ok_or_else(|| status(Reason::WriterNotFound, "no such writer"))?;
        let summary =
            v1::WriterSummary { writer: key.1, mode, epoch, ..v1::WriterSummary::default() };
        let summary = Some(summary);
        Ok(Response::new(v1::DescribeWriterResponse { summary, ..Default::default() }))
    }

    async fn delete_writer(
        &self,
        request: Request<v1::DeleteWriterRequest>,
    ) -> Result<Response<v1::DeleteWriterResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let key = (full_name(request.stream.as_ref()), request.writer);
        let known = state.writers.get(&key);
        let (epoch, _) = *known.ok_or_else(|| status(Reason::WriterNotFound, "no such writer"))?;
        if epoch > request.epoch {
            return Err(status(Reason::WriterFenced, "opened since"));
        }
        state.writers.remove(&key);
        state.managed.answer(v1::DeleteWriterResponse {})
    }

    async fn register_writer(
        &self,
        request: Request<v1::RegisterWriterRequest>,
    ) -> Result<Response<v1::RegisterWriterResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        Self::stream_of(&state, request.stream.as_ref())?;
        let key = (full_name(request.stream.as_ref()), request.writer);
        if !request.create && !state.writers.contains_key(&key) {
            return Err(status(Reason::WriterNotFound, "no such writer"));
        }
        let created = !state.writers.contains_key(&key);
        let first_epoch = state.first_epoch;
        let entry = state.writers.entry(key).or_insert((first_epoch, request.mode));
        if entry.1 != request.mode {
            return Err(status(Reason::WriterMode, "the name is used in the other mode"));
        }
        entry.0 += 1;
        let epoch = entry.0;
        let names_were_forgotten = state.names_were_forgotten;
        Ok(Response::new(v1::RegisterWriterResponse {
            writer: Bytes::from_static(&[9; 16]),
            epoch,
            stream_id: 7,
            created,
            may_be_stored: !created || names_were_forgotten,
        }))
    }

    async fn delete_scope(
        &self,
        request: Request<v1::DeleteScopeRequest>,
    ) -> Result<Response<v1::DeleteScopeResponse>, Status> {
        let scope = request.into_inner().scope;
        let mut state = self.state();
        if state.streams.keys().any(|name| name.starts_with(&format!("{scope}/"))) {
            return Err(status(Reason::ScopeNotEmpty, "the scope has streams; delete them first"));
        }
        let known = state.scopes.iter().position(|known| *known == scope);
        let known = known.ok_or_else(|| status(Reason::ScopeNotFound, "no such scope"))?;
        state.scopes.remove(known);
        state.managed.answer(v1::DeleteScopeResponse {})
    }

    async fn create_stream(
        &self,
        request: Request<v1::CreateStreamRequest>,
    ) -> Result<Response<v1::CreateStreamResponse>, Status> {
        let request = request.into_inner();
        let name = full_name(request.stream.as_ref());
        let managed = &mut self.state().managed;
        let known = managed.streams.get(&name).copied();
        let (stream_id, token) = known.unwrap_or_else(|| {
            managed.made += 1;
            (managed.made, request.token)
        });
        managed.streams.insert(name, (stream_id, token));
        let created = known.is_none() || (token != 0 && token == request.token);
        managed.answer(v1::CreateStreamResponse { stream_id, created })
    }

    async fn list_streams(
        &self,
        _: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn describe_stream(
        &self,
        request: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::DescribeStreamResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let managed = state.managed.streams.get(&full_name(request.stream.as_ref()));
        if managed.is_none() {
            Self::stream_of(&state, request.stream.as_ref())?;
        }
        let stream_id = managed.map_or(7, |(id, _)| *id);
        let summary = v1::StreamSummary { stream: request.stream, stream_id, ..Default::default() };
        Ok(Response::new(v1::DescribeStreamResponse {
            summary: Some(summary),
            ..v1::DescribeStreamResponse::default()
        }))
    }

    async fn seal_stream(
        &self,
        _: Request<v1::SealStreamRequest>,
    ) -> Result<Response<v1::SealStreamResponse>, Status> {
        Err(Status::unimplemented("tests seal directly"))
    }

    async fn truncate_stream(
        &self,
        request: Request<v1::TruncateStreamRequest>,
    ) -> Result<Response<v1::TruncateStreamResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let store = state.streams.get_mut(&full_name(request.stream.as_ref())).unwrap();
        for place in request.cut {
            let segment = store.segments.get_mut(&place.segment.unwrap().into()).unwrap();
            segment.start = segment.start.max(place.offset);
        }
        Ok(Response::new(v1::TruncateStreamResponse {}))
    }

    async fn check_cut(
        &self,
        request: Request<v1::CheckCutRequest>,
    ) -> Result<Response<v1::CheckCutResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let store = Self::stream_of(&state, request.stream.as_ref())?;
        let covers = proto::convert::cut_coverage(request.covers).unwrap();
        let cut = request.cut.iter().map(|place| (place.segment.unwrap().into(), place.offset));
        store.check_cut(&cut.collect::<Vec<_>>(), covers)?;
        Ok(Response::new(v1::CheckCutResponse {}))
    }

    async fn delete_stream(
        &self,
        request: Request<v1::DeleteStreamRequest>,
    ) -> Result<Response<v1::DeleteStreamResponse>, Status> {
        let request = request.into_inner();
        let name = full_name(request.stream.as_ref());
        let managed = &mut self.state().managed;
        match managed.streams.get(&name) {
            Some((id, _)) if [*id, 0].contains(&request.stream_id) => {
                managed.streams.remove(&name);
            }
            None if request.stream_id == 0 => {
                return Err(status(Reason::StreamNotFound, "no such stream"));
            }
            _ => {}
        }
        managed.answer(v1::DeleteStreamResponse {})
    }
}
