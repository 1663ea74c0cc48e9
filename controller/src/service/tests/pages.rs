//! Pages: complete, in order, and right while the list changes under them.

use common::KeyRange;
use proto::error::{Reason, reason_of};
use proto::v1;
use proto::v1::controller_server::Controller;
use tonic::{Request, Status};

use super::{Served, stream};
use crate::testing::scale;

use v1::SegmentSet::{ActiveSegments, HeadSegments, TailSegments};

fn page(size: u32, token: &str) -> Option<v1::Page> {
    Some(v1::Page { size, token: token.into() })
}

impl Served {
    async fn scopes(&self, size: u32, token: &str) -> Result<(Vec<String>, String), Status> {
        let request = Request::new(v1::ListScopesRequest { page: page(size, token) });
        let answer = Controller::list_scopes(&self.service, request).await?.into_inner();
        Ok((answer.scopes, answer.next_token))
    }

    async fn streams(&self, size: u32, token: &str) -> Result<(Vec<String>, String), Status> {
        let request = v1::ListStreamsRequest { scope: "demo".into(), page: page(size, token) };
        let answer = Controller::list_streams(&self.service, Request::new(request)).await?;
        let answer = answer.into_inner();
        let names = answer.streams.into_iter().map(|s| s.stream.unwrap().stream);
        Ok((names.collect(), answer.next_token))
    }

    async fn segment_page(
        &self,
        set: v1::SegmentSet,
        size: u32,
        token: &str,
    ) -> Result<v1::GetSegmentsResponse, Status> {
        let request = v1::GetSegmentsRequest {
            stream: stream("demo/hello"),
            set: set.into(),
            page: page(size, token),
            ..Default::default()
        };
        self.get_segments(request).await
    }

    async fn make_scope(&self, scope: String) {
        let request = Request::new(v1::CreateScopeRequest { scope });
        Controller::create_scope(&self.service, request).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn scopes_come_in_order_in_pages_of_the_size_asked_for() {
    let served = Served::new();
    assert_eq!(served.scopes(3, "").await.unwrap(), (vec![], String::new()));
    for number in 0..7 {
        served.make_scope(format!("s{number}")).await;
    }
    let (first, token) = served.scopes(3, "").await.unwrap();
    let (second, token) = served.scopes(3, &token).await.unwrap();
    let (third, token) = served.scopes(3, &token).await.unwrap();
    assert_eq!([first, second, third].concat(), ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    assert!(token.is_empty());
    let (all, token) = served.scopes(7, "").await.unwrap();
    assert!(all.len() == 7 && token.is_empty(), "a page that holds the end has no next");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_say_its_size_gets_the_default_and_the_largest_is_a_thousand() {
    let served = Served::new();
    for number in 0..1_001 {
        served.make_scope(format!("s{number:04}")).await;
    }
    assert_eq!(served.scopes(0, "").await.unwrap().0.len(), 100);
    let (most, token) = served.scopes(1_000, "").await.unwrap();
    assert_eq!(most.len(), 1_000);
    assert_eq!(served.scopes(1_000, &token).await.unwrap(), (vec!["s1000".into()], String::new()));
    assert_eq!(reason_of(&served.scopes(1_001, "").await.unwrap_err()), Reason::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn streams_that_come_and_go_between_pages_are_neither_doubled_nor_skipped() {
    let served = Served::new();
    for name in ["b", "d", "f", "h"] {
        served.create(&format!("demo/{name}"), 1).await;
    }
    let (first, token) = served.streams(2, "").await.unwrap();
    assert_eq!(first, ["b", "d"]);
    // The last one given goes, one comes before it and one behind it.
    served.delete("demo/d").await;
    served.create("demo/a", 1).await;
    served.create("demo/e", 1).await;
    let (rest, token) = served.streams(10, &token).await.unwrap();
    assert_eq!((rest, token), (vec!["e".into(), "f".into(), "h".into()], String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_list_is_refused() {
    let served = Served::new();
    for name in ["demo/a", "demo/b", "other/a"] {
        served.create(name, 2).await;
    }
    let (_, scopes) = served.scopes(1, "").await.unwrap();
    let (_, streams) = served.streams(1, "").await.unwrap();
    for status in [
        served.streams(1, &scopes).await.unwrap_err(),
        served.scopes(1, &streams).await.unwrap_err(),
        served.scopes(1, "1:scopes:not a name").await.unwrap_err(),
        served.scopes(1, "2:scopes:a").await.unwrap_err(),
    ] {
        assert_eq!(reason_of(&status), Reason::InvalidArgument);
        assert!(status.message().contains("`page.token`"), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_segments_tile_the_key_space() {
    let served = Served::new();
    served.create("demo/hello", 2_500).await;
    for set in [ActiveSegments, HeadSegments, TailSegments] {
        let (mut ranges, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let answer = served.segment_page(set, 0, &token).await.unwrap();
            let found = answer.segments.iter().map(|place| place.range.unwrap());
            ranges.extend(found.map(|range| KeyRange::new(range.low, range.high).unwrap()));
            (token, pages) = (answer.next_token, pages + 1);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(ranges, KeyRange::tile(2_500));
        assert_eq!(pages, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_active_segments_of_a_stream_sealed_between_pages_are_not_told_in_part() {
    let served = Served::new();
    served.create("demo/hello", 4).await;
    let first = served.segment_page(ActiveSegments, 2, "").await.unwrap();
    let tail = served.segment_page(TailSegments, 2, "").await.unwrap();
    let seal = Request::new(v1::SealStreamRequest { stream: stream("demo/hello") });
    Controller::seal_stream(&served.service, seal).await.unwrap();
    let next = served.segment_page(ActiveSegments, 2, &first.next_token).await.unwrap_err();
    assert_eq!(reason_of(&next), Reason::OutOfRange);
    let anew = served.segment_page(ActiveSegments, 2, "").await.unwrap();
    assert!(anew.segments.is_empty() && anew.next_token.is_empty());
    assert_eq!(anew.state, i32::from(v1::StreamState::Sealed));
    let next = served.segment_page(TailSegments, 2, &tail.next_token).await.unwrap();
    assert_eq!(next.segments.len(), 2, "where the tail is has not changed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_scaled_between_pages_is_read_on_where_the_keys_fit_and_refused_where_not() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 4).await.stream_id);
    let half = served.segment_page(ActiveSegments, 2, "").await.unwrap().next_token;
    let quarter = served.segment_page(ActiveSegments, 1, "").await.unwrap().next_token;
    let old = served.group.machine().stream_by_id(id).unwrap().current.clone();
    let halves = KeyRange::tile(2);
    scale(&mut served.group.machine(), Some(&served.stores), id, &old, &halves, 4);
    let next = served.segment_page(ActiveSegments, 2, &half).await.unwrap();
    assert_eq!((next.segments.len(), next.epoch), (1, 1));
    assert_eq!(next.segments[0].range, Some(halves[1].into()));
    let gone = served.segment_page(ActiveSegments, 2, &quarter).await.unwrap_err();
    assert_eq!(reason_of(&gone), Reason::OutOfRange);
    assert!(gone.message().contains("begin again"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_an_earlier_stream_of_the_name_is_refused() {
    let served = Served::new();
    served.create("demo/hello", 4).await;
    let token = served.segment_page(HeadSegments, 2, "").await.unwrap().next_token;
    served.delete("demo/hello").await;
    served.create("demo/hello", 4).await;
    let status = served.segment_page(HeadSegments, 2, &token).await.unwrap_err();
    assert_eq!(reason_of(&status), Reason::InvalidArgument);
    assert!(status.message().contains("deleted"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn successors_come_in_pages() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 1).await.stream_id);
    let old = served.group.machine().stream_by_id(id).unwrap().current.clone();
    let ranges = KeyRange::tile(5);
    scale(&mut served.group.machine(), Some(&served.stores), id, &old, &ranges, 1);
    let segment = Some(v1::SegmentId { stream: id.0, epoch: 0, number: 0 });
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::GetSuccessorsRequest { segment, page: page(2, &token) };
        let answer = Controller::get_successors(&served.service, Request::new(request)).await;
        let answer = answer.unwrap().into_inner();
        found.extend(answer.successors.iter().map(|place| place.range.unwrap()));
        token = answer.next_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = ranges.into_iter().map(v1::KeyRange::from).collect();
    assert_eq!(found, expected);
}
