package main

func main() { println("hello", len([]int{1, 2, 3}), 1.5) }
