// Package doccode holds Go code that documents show, so that it compiles. Its tests look that each block of Go in the
// documents is in some Go file of this repository, word by word.
package doccode
