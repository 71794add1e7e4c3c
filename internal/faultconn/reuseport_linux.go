package faultconn

// soReusePort is SO_REUSEPORT on every architecture but mips and sparc; package syscall lacks it on some.
const soReusePort = 0xf
