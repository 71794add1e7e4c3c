// Command gosec looks for mistakes that let attackers in, by the rules of github.com/securego/gosec, as a tool of `go vet`: tests are
// left out. gosec's own command brings clients of language models, which take ten minutes to compile.
package main
