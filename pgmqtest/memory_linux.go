package pgmqtest

import "syscall"

// memoryDirectory is a directory of files in memory with room for a server and the data of many tests, or "".
// In containers it is often small.
func memoryDirectory() string {
	const path, room = "/dev/shm", 2 << 30
	var free syscall.Statfs_t
	if err := syscall.Statfs(path, &free); err != nil || free.Bavail*uint64(free.Bsize) < room {
		return ""
	}
	return path
}
