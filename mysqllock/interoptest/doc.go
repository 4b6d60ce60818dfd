// Package interoptest tests mysqllock on a real server, through github.com/go-sql-driver/mysql. It
// holds tests only, in a module of its own, so that nobody inherits the driver.
package interoptest
