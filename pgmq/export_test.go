package pgmq

// InstallVersions is Install with other versions than those of the package schema.
var InstallVersions = (*Client).installVersions
