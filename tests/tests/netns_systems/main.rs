//! The package, the image of an amphora, and the machines of the Vagrant lab: each in a Debian that is made
//! for it, by the scripts that are shipped.

mod amphora;
mod package;
mod scripts;
mod vagrant;

use std::time::Instant;

use xdp_lb_tests::system::System;

/// One test, for it takes a minute to make the Debian that all of it begins with.
#[test]
fn netns_what_is_shipped_works_where_it_is_installed() {
    let began = Instant::now();
    let step = |name: &str| eprintln!("{:>4} s: {name}", began.elapsed().as_secs());
    step("the package");
    let package = package::Package::make().expect("a package");
    package.has_what_it_must();
    step("a Debian");
    let debian = System::debian(&["ca-certificates"]).expect("a Debian");
    step("the package in it");
    package.comes_and_goes(&debian);
    step("an amphora");
    amphora::boots_and_answers(&debian, &package);
    step("the lab of Vagrant");
    vagrant::carries_traffic(&debian, &package);
    step("done");
}
