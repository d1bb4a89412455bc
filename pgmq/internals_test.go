package pgmq

// What external tests look at by itself.
var (
	IsJSON = isJSON
	StdArg = stdArg
)
