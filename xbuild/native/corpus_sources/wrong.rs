fn main() {
    let unused: u8 = "text";
    undefined(unused)
}
