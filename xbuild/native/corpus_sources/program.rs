fn main() {
    let words: Vec<String> = std::env::args().collect();
    println!("{} {:.17e}", words.len(), 0.1f64 + words.len() as f64);
    std::process::exit(words.iter().map(String::len).sum::<usize>() as i32);
}
