package testserver

// Packages is the table of what each program comes with.
var Packages = packages
