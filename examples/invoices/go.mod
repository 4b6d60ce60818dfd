module github.com/holdfast-go/holdfast/examples/invoices

go 1.26.0
