package main

// The exit codes of holdfast itself, documented in docs/exit-codes.md. Those from 64 on are
// taken from sysexits.h, those from 126 on from the shell. `holdfast run` otherwise exits
// with the code of its command.
const (
	exitOK          = 0
	exitNotHeld     = 1   // nobody holds the lock, or nobody holds it with that fence
	exitProblem     = 1   // doctor found a problem
	exitUsage       = 64  // the command line, a setting or the URL is wrong
	exitUnavailable = 69  // the engine does not answer, or could not be opened
	exitLost        = 73  // the lock was lost while the command ran
	exitOutput      = 74  // standard output could not be written
	exitHeld        = 75  // somebody else holds the lock: --try, or --wait ran out
	exitNotStarted  = 126 // the command was found but could not be started
	exitNotFound    = 127 // the command was not found
	exitSignal      = 128 // plus the number of the signal that ended the command, or the wait
)

// exitStatus ends the program with a code when everything has been said already.
type exitStatus int

func (exitStatus) Error() string { return "" }
