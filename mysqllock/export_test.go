package mysqllock

// What tests look at from outside.
var (
	KeyOf        = keyOf
	CheckVersion = checkVersion
	CheckNode    = checkNode
)
