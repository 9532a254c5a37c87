//! Measures how long a KVM exit takes and explains where every cycle of it goes
fn main() {}
