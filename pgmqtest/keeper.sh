# The keeper: a process beside the test binary that outlives it for a moment, to tidy up.
#
# $1  where to create its directory
# $2  the command that ends whatever was started there
#
# It prints the name of its directory, then runs the commands it reads from its standard input, one a
# line, in that directory, and answers each with its exit status. What a command printed is in the file
# "output". When its input ends, for whatever reason, it tidies up. Since it does one thing after the
# other, nothing can be half started at that moment.

umask 077
trap '' PIPE

directory=$(mktemp -d "$1/pgmqtest.XXXXXX") && cd "$directory" || exit 1
echo "$directory"

while IFS= read -r command; do
	eval "$command" >output 2>&1 </dev/null
	echo $?
done

eval "$2" >/dev/null 2>&1 </dev/null
status=$?
cd / && rm -rf "$directory" && exit "$status"
