pub mod wasi {
    pub mod config {
        pub mod store {
            pub enum Error {
                Upstream(String),
                Io(String),
            }
            pub fn get(_: &str) -> Result<Option<String>, Error> {
                unreachable!()
            }
            pub fn get_all() -> Result<Vec<(String, String)>, Error> {
                unreachable!()
            }
        }
    }
}
