//! x
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let p = skep::config::Paths::under(std::path::Path::new(&a[2]));
    if let Err(e) = skep::daemon::run(p) { eprintln!("{}", skep::agent::chain(&e)); std::process::exit(1); }
}
