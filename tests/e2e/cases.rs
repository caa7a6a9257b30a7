//! Tables of cases: tests that run the same function with different arguments.

/// Makes one test from each line, which has the test's name and the arguments of the function.
macro_rules! cases {
    ($check:path => $($name:ident($($argument:expr),*);)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                $check($($argument),*).await;
            }
        )+
    };
}
