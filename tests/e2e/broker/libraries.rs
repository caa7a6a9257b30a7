//! Each client library directly on the broker: all that components do.

use crate::scenario::all_that_components_do;
use e2e::{Library, Maker, Server};

async fn works_on_the_broker(library: Library) {
    let broker = Server::start(Maker::Ours, &[]).await;
    all_that_components_do(library, &broker.url(), &broker.url()).await;
}

macro_rules! each_library_on_the_broker {
    ($($name:ident: $library:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                works_on_the_broker(Library::$library).await;
            }
        )*
    };
}

each_library_on_the_broker! {
    node_0_2_works_on_the_broker: Node02;
    node_0_8_works_on_the_broker: Node08;
    node_1_4_works_on_the_broker: Node14;
    node_now_works_on_the_broker: NodeNow;
    nats_python_works_on_the_broker: NatsPython;
    nats_py_works_on_the_broker: NatsPy;
    c_works_on_the_broker: C;
    go_works_on_the_broker: Go;
}
