//go:build !linux

package pgmqtest

func memoryDirectory() string { return "" }
