// Command holdfast runs commands under a distributed lock, and shows and breaks locks.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), streams{os.Stdin, os.Stdout, os.Stderr}))
}
