//! `braid writer`: what names stored where, and names that are freed.

use crate::harness::Server;

fn numbers(count: usize) -> String {
    (1..=count).map(|number| format!("event {number}\n")).collect()
}

#[test]
fn a_name_is_listed_described_and_begins_anew_once_it_is_deleted() {
    let mut server = Server::start();
    server.line("stream create demo/load --segments 3 --create-scope").run().ok();
    let append = "append demo/load --writer loader";
    server.line(append).input(numbers(30)).run().ok();

    let listed = server.line("writer list demo/load -o json").run().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed[0]["writer"], &listed[0]["mode"]), (&"loader".into(), &"replay".into()));
    let described = server.line("writer describe demo/load loader -o json").run().json();
    assert_eq!(described["stored_through"], 30, "{described}");
    assert!(!described["segments"].as_array().unwrap().is_empty());
    let table = server.line("writer describe demo/load loader").run().ok();
    assert!(table.contains("stored through") && table.contains("LAST NUMBER"), "{table}");

    // The same input again stores nothing, also after a kill.
    server.kill();
    server.restart();
    server.line(append).input(numbers(30)).run().ok();
    assert_eq!(server.read_all("demo/load").len(), 30);

    let said = server.line("writer delete demo/load loader").run().ok();
    assert_eq!(said.trim(), "deleted writer loader of stream demo/load");
    for verb in ["describe", "delete"] {
        let gone = server.line(&format!("writer {verb} demo/load loader")).run();
        gone.fails(3, &["writer `loader` is not known on stream `demo/load`"]);
    }
    server.line("writer list demo/none").run().fails(3, &["demo/none"]);
    // What is deleted stays deleted, and the name begins anew: the events are stored again.
    server.kill();
    server.restart();
    assert_eq!(server.line("writer list demo/load -o json").run().json(), serde_json::json!([]));
    server.line(append).input(numbers(30)).run().ok();
    assert_eq!(server.read_all("demo/load").len(), 60);
    let described = server.line("writer describe demo/load loader -o json").run().json();
    assert_eq!(described["stored_through"], 30, "{described}");
}
