#!/usr/bin/env bash
#
# picture.sh [--users N] [--facts N] [--max-users N] [--text FILE] [--output FILE]
#
# Makes doc/img/report.svg: the report of the demonstration's first cycle, as
# text in a drawing that follows the reader's light or dark background.  Works
# on a fresh Debian machine, as root or with sudo; takes a few minutes and
# removes all of it afterwards, packages excepted.
#
#	--users N	datamart users in the warehouse (default 20000)
#	--facts N	facts in the warehouse (default 1000000)
#	--max-users N	datamart users of the cycle (default 1000)
#	--text FILE	draw this text, a report; no server is needed then
#	--output FILE	write there, - is standard output
#
# PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config selects another major.

# shellcheck source=test/lib.sh disable=SC2119
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

users=20000
facts=1000000
max_users=1000
text=
output=$repository/doc/img/report.svg
database=warehouse

while [[ $# -gt 0 ]]; do
	case $1 in
	--users | --facts | --max-users)
		value=$(positive_number "$1" "${2:-}")
		name=${1#--}
		declare "${name//-/_}=$value"
		shift
		;;
	--text | --output)
		[[ -n ${2:-} ]] || die "$1 needs a file"
		value=$2
		[[ $value = /* || $value = - ]] || value=$PWD/$value
		declare "${1#--}=$value"
		shift
		;;
	-h | --help)
		usage
		exit
		;;
	*) die "unknown argument $1, see --help" ;;
	esac
	shift
done

#-------------------------------------------------------------------------
# The drawing
#-------------------------------------------------------------------------

# In tenths of a pixel, of a character and a line; the font that the reader has
# may be wider or narrower, so each word gets its place and its length.
advance=84
line_height=180
font_size=14
margin=200
title_bar=340

# tenths NUMBER: as pixels.
tenths() { printf '%d.%d' $(($1 / 10)) $(($1 % 10)); }

# escape TEXT: as XML has it.
escape() {
	local escaped=$1 amp='&amp;' lt='&lt;' gt='&gt;'
	escaped=${escaped//&/"$amp"}
	escaped=${escaped//</"$lt"}
	printf '%s' "${escaped//>/"$gt"}"
}

# draw_piece CLASS COLUMN Y TEXT
draw_piece() {
	printf '<text class="%s" x="%s" y="%s" textLength="%s">%s</text>\n' "$1" \
		"$(tenths $((margin + $2 * advance)))" "$(tenths "$3")" \
		"$(tenths $((${#4} * advance)))" "$(escape "$4")"
}

# draw_line CLASS Y LINE: words with single blanks between them stay together;
# bars are told from other text.
draw_line() {
	local class=$1 y=$2 rest=$3 column=0 piece
	local blanks='^( +)' full='^([▁▂▃▄▅▆▇█]+( *[▁▂▃▄▅▆▇█]+)*)' empty='^(░+)' words='^([^ ▁▂▃▄▅▆▇█░]+( [^ ▁▂▃▄▅▆▇█░]+)*)'

	while [[ -n $rest ]]; do
		if [[ $rest =~ $blanks ]]; then
			piece=${BASH_REMATCH[1]}
		elif [[ $rest =~ $full ]]; then
			piece=${BASH_REMATCH[1]}
			draw_piece bar "$column" "$y" "$piece"
		elif [[ $rest =~ $empty ]]; then
			piece=${BASH_REMATCH[1]}
			draw_piece rest "$column" "$y" "$piece"
		else
			[[ $rest =~ $words ]]
			piece=${BASH_REMATCH[1]}
			draw_piece "$class" "$column" "$y" "$piece"
		fi
		column=$((column + ${#piece}))
		rest=${rest:${#piece}}
	done
}

# draw < REPORT: the statement that one types, and what comes back.  The whole
# text is also the description, for those who do not see the picture.
draw() {
	local LC_ALL=C.UTF-8
	local line class columns=80 width height y
	local -a lines

	mapfile -t lines
	for line in "${lines[@]}"; do
		columns=$((${#line} > columns ? ${#line} : columns))
	done
	width=$((2 * margin + columns * advance))
	height=$((title_bar + (${#lines[@]} + 2) * line_height))

	cat <<-SVG
		<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" viewBox="0 0 $(tenths $width) $(tenths $height)" width="$(tenths $width)" height="$(tenths $height)">
		<title id="title">datamart_users_report() after a cycle</title>
		<desc id="desc">
		$(for line in "${lines[@]}"; do escape "$line"; echo; done)
		</desc>
		<style>
		text { font: ${font_size}px ui-monospace, "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace; fill: #24292f; white-space: pre }
		.window { fill: #fbfcfd; stroke: #c5ccd3 }
		.line { stroke: #c5ccd3 }
		.head { font-weight: bold }
		.name, .prompt { fill: #57606a }
		.bar { fill: #336791 }
		.rest { fill: #b9c6d2 }
		.failure { fill: #a4262c }
		@media (prefers-color-scheme: dark) {
		text { fill: #d5dbe1 }
		.window { fill: #12171d; stroke: #3a424b }
		.line { stroke: #3a424b }
		.name, .prompt { fill: #97a1ab }
		.bar { fill: #6ea4d0 }
		.rest { fill: #3d4d5c }
		.failure { fill: #f08b83 }
		}
		</style>
		<rect class="window" x="0.5" y="0.5" width="$(tenths $((width - 10)))" height="$(tenths $((height - 10)))" rx="6"/>
		<path class="line" d="M0.5 $(tenths $((title_bar - 100)))H$(tenths $((width - 5)))"/>
	SVG
	draw_piece name 0 170 psql
	y=$((title_bar + 110))
	draw_piece prompt 0 $y 'warehouse=>'
	draw_piece head 12 $y 'SELECT datamart_users_report();'
	y=$((y + line_height))
	for line in "${lines[@]}"; do
		case $line in
		'') class=text ;;
		Failures*) class='failure head' ;;
		[!\ ]*) class='head' ;;
		*) [[ $class = failure* ]] && class=failure || class=text ;;
		esac
		draw_line "$class" $y "$line"
		y=$((y + line_height))
	done
	echo '</svg>'
}

# Whole, or not at all.
write_picture() {
	local picture
	picture=$(draw)
	if [[ $output = - ]]; then
		printf '%s\n' "$picture"
	else
		printf '%s\n' "$picture" >"$output"
	fi
}

if [[ -n $text ]]; then
	write_picture <"$text"
	exit
fi

#-------------------------------------------------------------------------
# The cycle
#-------------------------------------------------------------------------
prepare_machine
prepare_workspace
build_extension
install_extension
start_server
build_warehouse "$database" "$users" "$facts"
flag_datamart_users "$database" "$users" 1

say 'A cycle'
sql "$database" -c "SELECT * FROM datamart_users_run_cycle($max_users)"
query "$database" 'SELECT datamart_users_report()' >"$workspace/report"
sed 's/^/   /' "$workspace/report"
write_picture <"$workspace/report"
[[ $output = - ]] || note "drawn in $output"
