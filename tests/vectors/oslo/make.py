"""Makes rows.json: what oslo.config itself makes of each file of texts.json.

Run with a Python that has oslo.config: python make.py
"""
import json
import os
import tempfile

from oslo_config import cfg

HERE = os.path.dirname(os.path.abspath(__file__))
STRINGS = {'DEFAULT': ['a', 'b', 'c', 'd', 'dash_key'],
           'health_manager': ['heartbeat_key', 'a', 'x']}


def read(text):
    """The values that are set, or the line at fault."""
    with tempfile.NamedTemporaryFile('wb', suffix='.conf') as file:
        file.write(text.encode())
        file.flush()
        conf = cfg.ConfigOpts()
        for group, names in STRINGS.items():
            for name in names:
                where = None if group == 'DEFAULT' else group
                conf.register_opt(cfg.StrOpt(name), group=where)
        conf.register_opts([cfg.ListOpt('list'), cfg.IntOpt('int'), cfg.BoolOpt('bool')])
        try:
            conf([], default_config_files=[file.name])
        except cfg.ConfigFileParseError as error:
            return {'line': int(str(error).split(' at ' + file.name + ':')[1].split(',')[0])}
        values = {}
        for group, names in list(STRINGS.items()) + [('DEFAULT', ['list', 'int', 'bool'])]:
            for name in names:
                try:
                    value = conf[name] if group == 'DEFAULT' else conf[group][name]
                except Exception:
                    value = {'error': True}
                if value is not None:
                    values['%s.%s' % (group, name)] = value
        return {'values': values}


with open(os.path.join(HERE, 'texts.json')) as texts:
    rows = [{'text': text, **read(text)} for text in json.load(texts)]
with open(os.path.join(HERE, 'rows.json'), 'w') as out:
    json.dump(rows, out, indent=1, sort_keys=True)
    out.write('\n')
